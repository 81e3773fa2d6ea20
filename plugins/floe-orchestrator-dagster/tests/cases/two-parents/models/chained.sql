select id + 5 as id from {{ ref('of_left') }}
