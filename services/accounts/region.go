package accounts

import (
	"errors"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// parseRegion reads the region of numbers without a country, as in DE.
func parseRegion(text string) (string, error) {
	region := strings.ToUpper(text)
	if region != "" && !phonenumbers.GetSupportedRegions()[region] {
		return "", errors.New("region: want the two letters of a country, as in DE")
	}
	return region, nil
}
