{{ exceptions.raise_compiler_error("\x1b[31mno\x1b[0m\x00" ~ "\nline" * 3000) if execute }}
select 1 as id
