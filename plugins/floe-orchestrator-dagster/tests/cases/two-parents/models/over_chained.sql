select id from {{ ref('chained') }}
