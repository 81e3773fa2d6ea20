select * from {{ ref('orders') }} where customer_id > 1
