select l.id from {{ ref('left_one') }} l, {{ ref('right_one') }} r
