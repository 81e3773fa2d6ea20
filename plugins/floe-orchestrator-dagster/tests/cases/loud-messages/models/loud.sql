-- {{ log("\x1b[31mred\x1b[0m \x00 null \x07 bell \u2028 line " ~ "long " * 60000, info=true) if execute }}
{{ exceptions.warn("A warning with \x00, {braces}, %s and \x1b[1mbold" ~ "!" * 5000) if execute }}
select '1' as id
