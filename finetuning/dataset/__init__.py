"""The raw rows that a recipe's sources name, each kept with its place.

raw_dataset         reads the rows of all sources
raw_rows            one raw row and its place
raw_folder          the files of a folder of raw rows
files               finds and opens the files of a source, at any address
bounded_memory      no file takes more memory than there is
file_rows           rows of files, streamed
json_rows           rows of JSON and JSON lines
csv_rows            rows of CSV
encodings           says how a text that is not UTF-8 is converted
hub_rows            rows of a data set on the Hub
linear_equations    rows that are made up: equations with a worked solution
product_manuals     documents that are made up, and questions that only they answer
drawing             draws some of the rows by a seed
formats             turns a row of a known format into a conversation
other_formats       what is known of judged answers and of text
row_columns         which column of a row is read as what
turns               reads the turns of a conversation, whatever their keys and roles are called
turn_order          checks what may come after what in a conversation
tool_calls          reads the tools that a row offers, and the calls of them
row_faults          why a row cannot be used
unread              finds what is not read of all rows, and stops where that carries meaning
format_recognition  tells the format of rows by their columns
format_advice       says what to write for rows that are in no format
revisions           which version of its data a source names now
raw_summary         counts, sources and first rows that later steps read
"""
