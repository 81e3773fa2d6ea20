select 1 as customer_id, 'a' as kind, null as note, true as active union all select 1, 'b', 'x', false
