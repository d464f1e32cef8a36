"""A head as a captured step: a denoiser that is called again and again under one condition.

policy      what of it is reused between timesteps: `HeadReuse`; start here     saving  the same as JSON
roles       which argument is noisy, which the time, which the condition        calls   one call's arguments
schedule    the timesteps of a denoising, and their order
program     a captured denoiser that runs part by part                          slow    values of time and condition
denoising   what is kept from call to call of one denoising                     records  what ran when
step        what takes the denoiser's place                                     stored   one of another process
captured    what is known of calls of one kind, of which there are no more than there is room for
"""
