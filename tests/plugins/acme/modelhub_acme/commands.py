import click


@click.command()
def acme():
    """Say what acme is."""
    click.echo("acme: linear models as text")
