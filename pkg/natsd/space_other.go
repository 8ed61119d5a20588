//go:build !linux && !darwin

package natsd

import "errors"

func measureSpace(string) (space, error) { return space{}, errors.ErrUnsupported }
