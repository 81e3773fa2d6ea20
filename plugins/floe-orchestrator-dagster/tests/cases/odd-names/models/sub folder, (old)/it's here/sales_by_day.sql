select id from {{ ref('2024_sales') }}
