"""Grammars in which nearly every token is free: a subset of Python, a C-like language, and SQL queries."""

from __future__ import annotations

import keyword

KEYWORDS = "|".join(keyword.kwlist)
GRAMMARS = {
    "Python": r"""
start: function
function: "def " NAME "(" (NAME (", " NAME)*)? "):\n" line+
line: "    " statement "\n"
statement: "return " sum | "pass" | NAME (" = " | " += ") sum | "if " test ": " small
    | "for " NAME " in " atom ": " small
small: "return " sum | "break" | "continue" | NAME (" = " | " += ") sum
test: sum (" < " | " > " | " == " | " != " | " <= " | " >= " | " in ") sum
sum: product ((" + " | " - ") product)*
product: atom ((" * " | " / " | " // " | " % ") atom)*
atom: NUMBER | STRING | NAME call* | "(" sum ")" | "[" (sum (", " sum)*)? "]"
call: "(" (sum (", " sum)*)? ")" | "[" sum "]" | "." NAME
NAME: /[a-z_][a-z0-9_]{0,15}/ & ~/WORDS/
NUMBER: /[1-9][0-9]{0,3}|0/
STRING: /"[^"\\\n]{0,20}"/
""".replace("WORDS", KEYWORDS),
    "C-like": r"""
start: TYPE " " NAME "(" (TYPE " " NAME (", " TYPE " " NAME)*)? ") {\n" line+ "}\n"
line: "    " statement "\n"
statement: TYPE " " NAME " = " sum ";" | NAME (" = " | " += ") sum ";" | "return " sum ";"
    | "if (" test ") { " small " }" | "while (" test ") { " small " }"
    | "for (int " NAME " = " sum "; " test "; " NAME "++) { " small " }"
small: NAME (" = " | " += ") sum ";" | "return " sum ";" | "break;"
test: sum (" < " | " > " | " == " | " != " | " <= " | " >= ") sum
sum: product ((" + " | " - ") product)*
product: atom ((" * " | " / " | " % ") atom)*
atom: NUMBER | NAME call? | "(" sum ")"
call: "(" (sum (", " sum)*)? ")" | "[" sum "]"
TYPE: "int" | "float" | "int*" | "float*"
NAME: /[a-z_][a-z0-9_]{0,15}/
NUMBER: /[1-9][0-9]{0,3}|0/
""",
    "SQL": r"""
start: "SELECT " columns " FROM " NAME join? where? group? order? limit? ";"
columns: "*" | column (", " column)*
column: (field | FUNCTION "(" (field | "*") ")") (" AS " NAME)?
field: (NAME ".")? NAME
join: " JOIN " NAME " ON " field " = " field
where: " WHERE " test ((" AND " | " OR ") test)*
test: field (" = " | " < " | " > " | " <> " | " LIKE ") value
value: NUMBER | STRING | field
group: " GROUP BY " field (", " field)*
order: " ORDER BY " field (" ASC" | " DESC")?
limit: " LIMIT " NUMBER
FUNCTION: "COUNT" | "SUM" | "AVG" | "MIN" | "MAX"
NAME: /[a-z_][a-z0-9_]{0,15}/
NUMBER: /[1-9][0-9]{0,3}|0/
STRING: /'[^'\n]{0,20}'/
""",
}
REQUESTS = {
    "Python": "Write a Python function that {what}. Answer with the code alone.",
    "C-like": "Write a C function that {what}. Answer with the code alone.",
    "SQL": "Write one SQL query that {query}. Answer with the query alone.",
}
WHATS = (
    "adds two numbers", "finds the largest of three numbers", "computes a factorial",
    "counts the even numbers of a list", "computes the greatest common divisor", "tells whether a number is prime",
    "sums the squares up to n", "clamps a value",
)  # fmt: skip
QUERIES = (
    "lists all users older than 30", "counts the orders of each customer", "finds the five dearest products",
    "sums the sales of each month", "lists the employees of the department 'sales'", "finds users without a name",
    "joins orders with customers", "gives the average price by category",
)  # fmt: skip
