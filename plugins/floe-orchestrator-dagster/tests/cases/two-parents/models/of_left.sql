select id from {{ ref('left_one') }}
