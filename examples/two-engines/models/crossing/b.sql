select id, tens, sum(tens) over (order by id) as so_far from {{ ref('a') }}
