select id from {{ ref('outer') }} where id > 10
