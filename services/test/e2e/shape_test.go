package e2e

import (
	"fmt"
)

// otherShape says where a value is not shaped as the wanted one: which fields are missing, are there unasked or are of
// another type. Of a list every item has to be as one of the wanted ones. Where the exact values are wanted, they have
// to be there.
func otherShape(want, got any, exactly bool, added []string) []string {
	return compare("", want, got, exactly, added)
}

// tables are objects whose keys are data.
var tables = map[string]bool{".states": true, "[].states": true, ".checks": true}

func compare(place string, want, got any, exactly bool, added []string) (problems []string) {
	if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
		return []string{fmt.Sprintf("%q is %s, want %s", place, typeOf(got), typeOf(want))}
	}
	switch want := want.(type) {
	case map[string]any:
		got := got.(map[string]any)
		if tables[place] {
			for _, one := range want {
				for key, value := range got {
					problems = append(problems, compare(place+"."+key, one, value, exactly, added)...)
				}
				break
			}
			return problems
		}
		for key, value := range want {
			if other, ok := got[key]; ok {
				problems = append(problems, compare(place+"."+key, value, other, exactly, added)...)
			} else {
				problems = append(problems, fmt.Sprintf("%q is missing", place+"."+key))
			}
		}
		for key := range got {
			if _, ok := want[key]; !ok && !contains(added, place+"."+key) {
				problems = append(problems, fmt.Sprintf("%q is there unasked", place+"."+key))
			}
		}
	case []any:
		got := got.([]any)
		if len(want) > 0 && len(got) == 0 || exactly && len(want) != len(got) {
			problems = append(problems, fmt.Sprintf("%q has %d items, want %d", place, len(got), len(want)))
		}
		for i, value := range got {
			var best []string
			for j, one := range want {
				if exactly && i != j {
					continue
				}
				if found := compare(place+"[]", one, value, exactly, added); best == nil || len(found) < len(best) {
					best = append([]string{}, found...)
				}
			}
			problems = append(problems, best...)
		}
	default:
		if exactly && want != got {
			problems = append(problems, fmt.Sprintf("%q is %v, want %v", place, got, want))
		}
	}
	return problems
}

func contains(added []string, place string) bool {
	for _, one := range added {
		if "."+one == place || one == place {
			return true
		}
	}
	return false
}

func typeOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case map[string]any:
		return "an object"
	case []any:
		return "an array"
	case string:
		return "a text"
	case float64:
		return "a number"
	default:
		return "true or false"
	}
}

const versionBody = `"version": "1.2.0",
      "versionCode": 5,
      "downloadUrl": "https://selfhostedsms.com/download/app.apk",
      "fileSize": 15728640,
      "publishedAt": "2026-01-26T12:00:00+00:00"`
