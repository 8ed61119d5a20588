package node

import (
	"fmt"
	"io"
)

// Banner tells whoever started the server how to go on. It is for standard
// output only: on the first start it holds the token.
func Banner(w io.Writer, s Started) error {
	if s.Token == "" {
		_, err := fmt.Fprintf(w, "Trunkline is ready at %s\nFor a token: trunkline account token %s\n", s.URL, DefaultAccount)
		return err
	}
	api := s.URL + "/api/" + s.Token.Reveal()
	_, err := fmt.Fprintf(w, `Trunkline is ready at %s

The account %q has this token, which is not shown again:
%s

Queue an SMS, pull it as a phone does, and report it as sent:

curl -sS -H 'Content-Type: application/json' -d '[{"phone":"+1234567890","message":"Hello"}]' %s/queue; echo
hash=$(curl -sS '%s/get_messages?limit=1' | sed -n 's/.*"hash":"\([0-9a-f]*\)".*/\1/p'); echo "pulled $hash"
curl -sS -H 'Content-Type: application/json' -d '{"messages":[{"hash":"'$hash'","status":2}]}' %s/status; echo
`, s.URL, DefaultAccount, s.Token.Reveal(), api, api, api)
	return err
}
