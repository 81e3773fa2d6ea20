select rest, count(*) as n from {{ ref('c') }} group by rest
