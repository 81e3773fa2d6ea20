select id from {{ ref('None') }}
