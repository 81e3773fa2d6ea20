select id from {{ source('copies', 'orders') }}
