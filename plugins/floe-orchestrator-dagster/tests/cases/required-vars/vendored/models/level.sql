select {{ var('pkg_level') }} as level, {{ var('limit_of_rows') }} as rows
