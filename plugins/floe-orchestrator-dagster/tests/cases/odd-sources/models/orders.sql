select id from {{ source('shop', 'raw_orders') }}
