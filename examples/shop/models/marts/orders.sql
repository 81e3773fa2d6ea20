{{ config(materialized='incremental', unique_key='order_id') }}
select o.order_id, o.customer_id, o.ordered_on, o.status, p.payments, p.amount
from {{ ref('stg_orders') }} as o
join {{ ref('int_order_payments') }} as p using (order_id)
{% if is_incremental() %}
where o.ordered_on >= (select max(ordered_on) from {{ this }})
{% endif %}
