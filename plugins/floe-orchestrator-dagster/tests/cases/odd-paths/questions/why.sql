select * from {{ ref('outer') }}
