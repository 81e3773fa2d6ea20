select id as payment_id, order_id, method, cents / 100.0 as amount
from {{ source('landing', 'raw_payments') }}
