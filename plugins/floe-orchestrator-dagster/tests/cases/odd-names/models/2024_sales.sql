select id from {{ ref('two words') }}
