select 1 as order_id, 2.5 as amount, date '2026-01-01' as ordered_on
