-- café
select 1 as id, 0.5 as ratio, timestamp '2026-01-01' as seen
