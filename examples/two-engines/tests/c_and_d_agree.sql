select 1
from (select count(*) as n from {{ ref('c') }}) as c
cross join (select sum(n) as n from {{ ref('d') }}) as d
where c.n <> d.n
