select id from {{ ref('beyond') }}
