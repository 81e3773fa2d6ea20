select count(*) from {{ source('landing', 'landed') }} having count(*) = 0
