select l.id from {{ ref('left_one') }} l left join {{ ref('right_one') }} r using (id) where r.id is null
