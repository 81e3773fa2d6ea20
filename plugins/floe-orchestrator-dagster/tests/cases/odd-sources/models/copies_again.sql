-- depends_on: {{ ref('orders') }}
select id from {{ source('copies', 'orders') }}
