select id from {{ ref('class') }}
