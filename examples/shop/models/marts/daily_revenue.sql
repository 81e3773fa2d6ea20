select ordered_on, count(*) as orders, sum(amount) as revenue
from {{ ref('orders') }}
where status <> 'returned'
group by ordered_on
