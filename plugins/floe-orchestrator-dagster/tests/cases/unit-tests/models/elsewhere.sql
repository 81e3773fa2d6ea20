select id + 1 as id from {{ ref('book', v=1) }}
