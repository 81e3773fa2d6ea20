select id from {{ ref('of_left') }}
