select id from {{ source('a', 'b_c') }} union all select id from {{ source('a_b', 'c') }}
