select id from {{ ref('sales.orders') }}
