select id, so_far, so_far % 7 as rest from {{ ref('b') }}
