select max(so_far)::numeric(10, 2) as top from {{ ref('b') }}
