select id from {{ ref('sales') }}
