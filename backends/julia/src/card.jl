# A draft of the model card: what `save_model` knows, and a line to be written for all that only people know. The headings are
# those that `chips publish` asks for; a card is complete when no line begins with TODO.

const CARD = "card.md"
const COLUMNS_NAMED = 30
const LONGEST_NAME = 60

"The card in Markdown. `training_rows`: nothing where the training data is not known."
function draft_card(model, format, signature::Signature, packages, training_rows)
    needs = isempty(packages) ? "" : ", with " * join(("$name $version" for (name, version) in packages), ", ")
    trained = training_rows === nothing ? "" : "\nTrained on $training_rows rows; baseline.json describes them.\n"
    return """
    # Model card

    <!-- A draft: replace every line that begins with TODO. chips publish takes this file with the model. -->

    ## Owner

    TODO: the team or person that answers for this model, with an address.

    ## Purpose

    TODO: what its predictions are used for, by whom, and what they must not be used for.

    It predicts $(card_columns(signature.outputs)) by $(card_name(string(nameof(typeof(model))))) ($format$needs).

    ## Data

    TODO: where the training data comes from, which period it covers, and who may use it.
    $trained
    Inputs: $(card_columns(signature.inputs)).

    ## Limits

    TODO: for which inputs or groups of people it is wrong more often, and when it must be trained again.

    ## Metrics

    TODO: how good it is, measured how, on which data, and against what.
    """
end

function card_columns(columns)
    named = join(("`$(card_name(column.name))` $(column.datatype)" for column in first_items(columns, COLUMNS_NAMED)), ", ")
    more = length(columns) - COLUMNS_NAMED
    return more > 0 ? "$named and $more more" : named
end

"A name without what Markdown or a reader of the card could take for something else."
function card_name(name)
    shown = join(
        char == '`' ? '\'' : isprint(char) && !is_format(char) ? char : escape_string(string(char), keep = ()) for char in name
    )
    return length(shown) <= LONGEST_NAME ? shown : first(shown, LONGEST_NAME - 1) * "…"
end

# Characters that cannot be seen, such as those that turn the direction of writing, and blanks other than the usual one.
is_format(char) = Base.Unicode.category_abbrev(char) in ("Cf", "Zl", "Zp") || (isspace(char) && char != ' ')
