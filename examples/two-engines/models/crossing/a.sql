select id, id * 10 as tens from {{ ref('numbers') }}
