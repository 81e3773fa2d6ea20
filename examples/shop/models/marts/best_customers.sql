{{ config(materialized='view') }}
select customer_id, name, amount, rank() over (order by amount desc) as place
from {{ ref('customers') }}
qualify place <= 5
