select id, ratio from {{ ref('orders') }} where '{{ var('since') }}' < '2027'
