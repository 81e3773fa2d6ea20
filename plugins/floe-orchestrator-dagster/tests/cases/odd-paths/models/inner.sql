select {{ ten() }} as id from {{ ref('numbers') }} limit 1
