select id from {{ ref('sales_by_day') }}
