-- Every euro of an order is a payment, and the other way round.
select 1
from (select sum(amount) as amount from {{ ref('orders') }}) as o
cross join (select sum(amount) as amount from {{ ref('stg_payments') }}) as p
where abs(o.amount - p.amount) > 0.001
