// One call of a model, in five languages, with its real fields.
import { quote } from './commands.js';

const string = (text) => JSON.stringify(text);
const literal = {
  python(value) { return value === null ? 'None' : value === true ? 'True' : value === false ? 'False' : tree(value, literal.python, ['[', ']'], (name, inner) => `${string(name)}: ${inner}`, ['{', '}']); },
  r(value) { return value === null ? 'NULL' : typeof value === 'boolean' ? String(value).toUpperCase() : tree(value, literal.r, ['list(', ')'], (name, inner) => `${string(name)} = ${inner}`, ['list(', ')']); },
  julia(value) { return value === null ? 'nothing' : tree(value, literal.julia, ['[', ']'], (name, inner) => `${string(name).replaceAll('$', '\\$')} => ${inner}`, ['Dict(', ')'], (text) => string(text).replaceAll('$', '\\$')); },
};

function tree(value, inner, list, pair, object, text = string) {
  if (Array.isArray(value)) return `${list[0]}${value.map(inner).join(', ')}${list[1]}`;
  if (value && typeof value === 'object') return `${object[0]}${Object.entries(value).map(([name, one]) => pair(name, inner(one))).join(', ')}${object[1]}`;
  return typeof value === 'string' ? text(value) : String(value);
}

export function examples(url, body, isPublic, isOurs = true) {
  const json = JSON.stringify(body);
  return {
    curl: `curl ${quote(url)}${isPublic ? '' : ' \\\n  -H "X-Api-Key: $CHIPS_KEY"'} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quote(json)}`,
    Python: `import os\nimport requests\n\nanswer = requests.post(\n    ${string(url)},\n    json=${literal.python(body)},${isPublic ? '' : '\n    headers={"X-Api-Key": os.environ["CHIPS_KEY"]},'}\n    timeout=60,\n)\nanswer.raise_for_status()\nprint(answer.json()${isOurs ? '["predictions"]' : ''})`,
    R: `library(httr2)\n\nanswer <- request(${string(url)}) |>${isPublic ? '' : '\n  req_headers(`X-Api-Key` = Sys.getenv("CHIPS_KEY")) |>'}\n  req_body_json(${literal.r(body)}) |>\n  req_perform() |>\n  resp_body_json()\nprint(answer${isOurs ? '$predictions' : ''})`,
    JavaScript: `const answer = await fetch(${string(url)}, {\n  method: "POST",\n  headers: {${isPublic ? '' : ' "X-Api-Key": process.env.CHIPS_KEY,'} "Content-Type": "application/json" },\n  body: JSON.stringify(${json}),\n});\nif (!answer.ok) throw new Error(await answer.text());\nconsole.log(${isOurs ? '(await answer.json()).predictions' : 'await answer.json()'});`,
    Julia: `using HTTP, JSON3\n\nanswer = HTTP.post(\n    ${string(url)},\n    [${isPublic ? '' : '"X-Api-Key" => ENV["CHIPS_KEY"], '}"Content-Type" => "application/json"],\n    JSON3.write(${literal.julia(body)}),\n)\nprintln(JSON3.read(answer.body)${isOurs ? '.predictions' : ''})`,
  };
}
